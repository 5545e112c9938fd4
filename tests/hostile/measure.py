"""What hostile files cost: the most memory and the time of each call, as a table.

    RABOT_HOSTILE_DIR=/tmp/hostile cargo test -p rabot --test hostile on_request
    python3 tests/hostile/measure.py target/release/rabot /tmp/hostile
"""

import os
import pathlib
import resource
import sys
import time

MODES = {
    "inspect": ["inspect"],
    "compile": ["compile", "--emit", "clif", "-o", "out.clif"],
    "run": ["run", "--random", "1"],
    "reference": ["run", "--random", "1", "--reference"],
}
SECONDS = 1.0
MIB = 256.0
KILL_SECONDS = 20


def measure(command):
    """Exit status, seconds, MiB, and the first line of the error."""
    start = time.monotonic()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        os.dup2(write, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

        resource.setrlimit(resource.RLIMIT_CPU, (KILL_SECONDS, KILL_SECONDS))
        os.execv(command[0], command)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        text = stream.read().decode(errors="replace")
    _, status, usage = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(status), time.monotonic() - start, usage.ru_maxrss / 1024, text


def main():
    rabot, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    only = sys.argv[3:]
    over = 0
    for path in sorted(folder.glob("*.onnx")):
        if only and path.stem not in only:
            continue
        for verb, arguments in MODES.items():
            if path.stem == "large" and verb != "inspect":
                continue
            target = folder / "out.clif"
            arguments = [str(target) if part.endswith(".clif") else part for part in arguments]
            code, seconds, mib, text = measure([rabot, arguments[0], str(path), *arguments[1:]])
            bad = seconds > SECONDS or mib > MIB or code not in (0, 2) or "this takes more" in text
            over += bad
            lines = [line for line in text.splitlines() if "error" in line or "panicked" in line]
            first = (lines or [""])[0][:110]
            print(f"{'!' if bad else ' '} {path.stem:24} {verb:9} {code:4} {seconds:6.2f} s {mib:7.1f} MiB  {first}", flush=True)
    print(f"{over} over {SECONDS} s or {MIB:.0f} MiB, or not ended by an answer or an error")


main()
