"""The line in which a benchmark states a figure: `FIGURE <name> <value> <target> <ok|short>`."""


def print_figure(name: str, value: float, target: float, *, higher: bool = True) -> bool:
    """Print one figure with its target and whether it is reached, and say so; `higher` tells which side of the target is the good one."""
    well = value >= target if higher else value <= target
    print(f"FIGURE {name} {value:.4g} {'>=' if higher else '<='}{target:g} {'ok' if well else 'short'}", flush=True)
    return well


def state_figure(name: str, value: float) -> None:
    """Print a figure that has no target."""
    print(f"FIGURE {name} {value:.4g} - stated", flush=True)
