"""Say what figures were measured on: processor, load, and versions.

python -m benchmarks.machine
"""

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch

PACKAGES = ("torch", "diffusers", "transformers", "peft", "numpy")


def describe_processor() -> str:
    """The processor's name and what it can do that matters here, as Linux says it; elsewhere as Python does."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in cpuinfo.read_text().split("\n\n")[0].splitlines() if ":" in line)
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    name = facts.get("model name", platform.machine())
    return f"{name}, family {facts.get('cpu family', '?')}, model {facts.get('model', '?')}, {torch.backends.cpu.get_cpu_capability()}"


def main() -> None:
    print(f"machine: {describe_processor()}; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"versions: Python {platform.python_version()}, {', '.join(f'{name} {version(name)}' for name in PACKAGES)}")
    if torch.cuda.is_available():
        print(f"GPU: {torch.cuda.get_device_name()}")


if __name__ == "__main__":
    main()
