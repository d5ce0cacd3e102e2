"""Ten thousand connects, resets and half-closes, inside and through the host: nothing may be lost.

python bench/network_soak.py [COUNT]
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

OCCLUM = str(Path(sysconfig.get_path("scripts")) / "occlum")
PROGRAM = Path(__file__).parent.parent / "tests/linux/inet_many.py"


def main() -> None:
    count = sys.argv[1] if len(sys.argv) > 1 else "10000"
    with tempfile.TemporaryDirectory(prefix="occlum-soak-") as directory:
        instance = Path(directory) / "instance"
        subprocess.run([OCCLUM, "new", instance], check=True)
        subprocess.run([OCCLUM, "add", "/usr/bin/python3"], cwd=instance, check=True)
        (instance / "image/opt").mkdir(exist_ok=True)
        (instance / "image/opt/many.py").write_text(PROGRAM.read_text())
        config = instance / "Occlum.json"
        text = config.read_text()
        for loopback in ("inside", "host"):
            config.write_text(text.replace('"loopback": "inside"', f'"loopback": "{loopback}"'))
            subprocess.run([OCCLUM, "build"], cwd=instance, check=True)
            command = [OCCLUM, "run", "/usr/bin/python3", "/opt/many.py", count]
            done = subprocess.run(command, cwd=instance, capture_output=True, text=True)
            print(f"-- loopback {loopback}\n{done.stdout}{done.stderr}", end="")
            if done.returncode or "open files as before: True" not in done.stdout:
                raise SystemExit("network-soak: something was lost")


if __name__ == "__main__":
    main()
