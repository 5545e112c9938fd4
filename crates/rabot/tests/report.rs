//! Pages of `rabot debug --html`, and several runs in one.

use serde_json::Value;
use std::fs;
use std::process::Command;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../demo/digits.onnx");
const OPEN: &str = "<script type=\"application/json\" id=\"rabot-report\">";

fn rabot(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_rabot")).args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn data(page: &str) -> Value {
    let text = fs::read_to_string(page).unwrap();
    let (_, rest) = text.split_once(OPEN).unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

#[test]
fn a_page_holds_every_pass_and_pages_can_be_put_together() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (one, table, both) = (path("one.html"), path("table.json"), path("both.html"));
    let args = ["debug", MODEL, "--random", "1", "--pipeline", "fold,fuse,group"];
    assert_eq!(rabot(&[&args[..], &["--html", &one]].concat()).0, Some(0));
    let run = &data(&one)["runs"][0];
    let passes: Vec<&str> =
        run["stages"].as_array().unwrap().iter().map(|stage| stage["pass"].as_str().unwrap()).collect();
    assert_eq!(passes, ["import", "fold", "fuse", "group"]);
    assert!(run["stages"][1]["nodes"].as_array().unwrap().is_empty(), "nothing is folded");
    assert!(run["stages"][2]["ledger"]["added"].as_f64().unwrap() > 0.0);
    assert!(run["code"][0]["assembly"].as_str().unwrap().contains("ret"));
    assert!(run["kernels"].as_array().unwrap().iter().any(|kernel| kernel["time_ns"].is_u64()));

    fs::write(&table, rabot(&[&args[..], &["--json"]].concat()).1).unwrap();
    assert_eq!(rabot(&["report", &one, &table, &both, "--html", &both]).0, Some(2), "one is not there");
    assert_eq!(rabot(&["report", &one, &table, "--html", &both]).0, Some(0));
    let runs = data(&both)["runs"].clone();
    assert_eq!(runs.as_array().unwrap().len(), 2);
    assert_eq!(&runs[0], run);
    assert!(runs[1]["trace"]["rows"].is_array());

    let (code, _, stderr) = rabot(&["report", &both, &both, &one, "--html", &path("many.html")]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("5 runs are given; a page shows 4"), "{stderr}");
    let (code, _, stderr) = rabot(&["report", MODEL, "--html", &both]);
    assert!(code == Some(2) && stderr.contains("is no run"), "{stderr}");
}
