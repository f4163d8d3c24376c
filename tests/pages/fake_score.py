"""Stands in for the `mmn` program: same arguments, same progress reports, same result; scores nothing.

`--limit N` sets the pictures, `FAKE_STEP_S` the seconds for each; pictures in a folder named `unscorable` make it fail.
"""

import json
import os
import signal
import sys
import time


def main(words: list[str]) -> int:
    def option(name: str, default: str) -> str:
        return words[words.index(name) + 1] if name in words else default

    if option("--images", "").endswith("unscorable"):
        print(json.dumps({"error": "ModelError", "message": "no weights there; give a folder with some"}))
        return 2
    n, step_s = int(option("--limit", "5")), float(os.environ.get("FAKE_STEP_S", "0"))
    done = {"run_id": "3f2a9c1b00112233", "n_failed": 0, "n_scores": 1000, "seconds": 1.0, "images_per_s": 5.0}
    try:
        for i in range(n + 1):
            report = {"stage": "score", "done": i, "total": n, "rate": 5.0, "remaining_s": (n - i) / 5, "message": ""}
            print(json.dumps(report | {"run_id": done["run_id"]}), file=sys.stderr, flush=True)
            time.sleep(step_s)
    except KeyboardInterrupt:
        print(json.dumps({"error": "Cancelled", "message": "cancelled; what was finished is kept"}))
        return 130
    print(json.dumps(done | {"status": "complete", "n_images": n}))
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
