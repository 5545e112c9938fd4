//! External data that leads elsewhere, and a model of gigabytes.

use super::build::*;
use super::{calls, problem, rabot};
use prost::Message;
use rabot::onnx::wire::*;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::process::Command;

/// A model that adds a tensor, whose data are where these entries say.
fn model_at(entries: &[(&str, &str)]) -> Vec<u8> {
    let entry = |(key, value): &(&str, &str)| StringStringEntryProto {
        key: (*key).to_owned(),
        value: (*value).to_owned(),
    };
    let weights = TensorProto {
        external_data: entries.iter().map(entry).collect(),
        data_location: DATA_LOCATION_EXTERNAL,
        ..tensor_f32("w", &[2, 3], &[])
    };
    simple(vec![node("Add", &["x", "w"], &["y"])], vec![weights])
}

/// A folder with a model's folder in it, and everything that a location may lead to.
fn lay_out(outer: &Path) {
    let folder = outer.join("model");
    fs::create_dir_all(folder.join("sub")).unwrap();
    fs::write(outer.join("secret"), [0x42; 24]).unwrap();
    fs::write(folder.join("sub/data"), [0; 24]).unwrap();
    symlink("../secret", folder.join("link")).unwrap();
    symlink(outer, folder.join("up")).unwrap();
    symlink("sub/data", folder.join("inner")).unwrap();
    symlink("loop", folder.join("loop")).unwrap();
    fs::hard_link(outer.join("secret"), folder.join("hard")).unwrap();
    assert!(Command::new("mkfifo").arg(folder.join("pipe")).status().unwrap().success());
}

#[test]
fn external_data_lead_nowhere_else() {
    let outer = tempfile::tempdir().unwrap();
    lay_out(outer.path());
    let folder = outer.path().join("model");
    let secret = outer.path().join("secret").display().to_string();
    let at = |location: &str| vec![("location".to_owned(), location.to_owned())];
    let and = |key: &str, value: &str| {
        let mut entries = at("sub/data");
        entries.push((key.to_owned(), value.to_owned()));
        entries
    };
    let cases = [
        (at("../secret"), "leads out"),
        (at("sub/../../secret"), "leads out"),
        (at(&secret), "leads out"),
        (at("/dev/zero"), "leads out"),
        (at(""), "leads out"),
        (at("link"), "link"),
        (at("inner"), "link"),
        (at("up/secret"), "link"),
        (at("loop"), "link"),
        (at("hard"), "hard links"),
        (at("pipe"), "regular file"),
        (at("sub"), "regular file"),
        (at("absent"), "No such file"),
        (at("a\0b"), "nul"),
        (at(&"a/".repeat(100_000)), "external data"),
        (at(&"b".repeat(100_000)), "external data"),
        (and("offset", "1"), "not within"),
        (and("offset", "18446744073709551615"), "not within"),
        (and("offset", "-1"), "expected a number"),
        (and("offset", &"9".repeat(1000)), "expected a number"),
        (and("length", "25"), "`length` is 25"),
        (and("length", "18446744073709551615"), "`length` is"),
        (and("length", "0"), "`length` is 0"),
        (and("__class__", "x"), "not known"),
        (and("basepath", "/etc"), "not known"),
        (and("location", "/etc/passwd"), "given twice"),
    ];
    let (path, target) = (folder.join("model.onnx"), outer.path().join("out.clif"));
    let (model, target) = (path.to_str().unwrap(), target.to_str().unwrap());
    for (entries, expected) in cases {
        let entries: Vec<(&str, &str)> = entries.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        fs::write(&path, model_at(&entries)).unwrap();
        for (verb, args) in calls(model, target) {
            let output = rabot(&args);
            let found = problem(&output, Some(expected));
            assert!(found.is_none(), "{verb} {:.200?}: {found:?}", entries);
            assert_eq!(output.status.code(), Some(2), "{verb} {entries:?}");
        }
    }
    fs::write(&path, model_at(&[("location", "sub/data"), ("offset", "0"), ("length", "24")])).unwrap();
    assert!(rabot(&["run", model, "--random", "1"]).status.success());
    fs::write(&path, model_at(&[("location", "link")])).unwrap();
    assert!(rabot(&["run", model, "--random", "1", "--follow-links"]).status.success());
}

/// Tensors of the large model, and the bytes of each.
const LARGE: (i64, i64) = (96, 64 << 20);

/// A model of 6 GiB in `folder`, most of it a hole in a file.
fn large_model(folder: &Path) {
    let (count, bytes) = LARGE;
    let file = File::create(folder.join("weights")).unwrap();
    file.set_len((count * bytes) as u64).unwrap();
    let columns = bytes / 4 / 4096;
    let mut nodes = Vec::new();
    let mut tensors = Vec::new();
    let mut from = "x".to_owned();
    for at in 0..count {
        // Weights of 4096 rows and of 4096 columns in turn, so that products follow each other.
        let dims = if at % 2 == 0 { [4096, columns] } else { [columns, 4096] };
        let name = format!("w{at}");
        // No two weights are equal.
        file.write_all_at(&(at as f32 + 1.0).to_le_bytes(), (at * bytes) as u64).unwrap();
        let offset = (at * bytes).to_string();
        let entry =
            |key: &str, value: &str| StringStringEntryProto { key: key.to_owned(), value: value.to_owned() };
        tensors.push(TensorProto {
            external_data: vec![
                entry("location", "weights"),
                entry("offset", &offset),
                entry("length", &bytes.to_string()),
            ],
            data_location: DATA_LOCATION_EXTERNAL,
            ..tensor_f32(&name, &dims, &[])
        });
        let to = if at + 1 == count { "y".to_owned() } else { format!("v{at}") };
        nodes.push(node("MatMul", &[&from, &name], &[&to]));
        from = to;
    }
    let mut graph = graph(&[value("x", FLOAT, &["batch", "4096"])], nodes, &["y"]);
    graph.initializer = tensors;
    fs::write(folder.join("large.onnx"), model(graph).encode_to_vec()).unwrap();
}

/// Addresses are not memory: the weights are mapped, so the limit is on what is allocated, and on what is read.
#[test]
fn a_model_of_6_gib_is_inspected_without_reading_its_weights() {
    let folder = tempfile::tempdir().unwrap();
    large_model(folder.path());
    let model = folder.path().join("large.onnx").display().to_string();
    // Prints the most memory that the call had, mapped files included, in KiB.
    let script = "import os, resource, subprocess, sys\n\
                  subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n\
                  print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)";
    let rabot = env!("CARGO_BIN_EXE_rabot");
    let output = Command::new("python3").args(["-c", script, rabot, "inspect", &model]).output();
    let Ok(output) = output else {
        eprintln!("skipped: there is no python3 to measure memory with");
        return;
    };
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{err}");
    let kib: u64 = out.trim().parse().unwrap();
    assert!(kib < 300 << 10, "{kib} KiB");
}

/// Makes the large model for `tests/hostile/measure.py`, which names the folder.
#[test]
fn the_large_model_is_written_on_request() {
    let Some(folder) = std::env::var_os("RABOT_HOSTILE_DIR") else { return };
    fs::create_dir_all(&folder).unwrap();
    large_model(Path::new(&folder));
}
