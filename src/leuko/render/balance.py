"""What balancing did, in words."""

from __future__ import annotations

from leuko.data.balance.write import BalanceReport

__all__ = ["format_balance"]


def format_balance(report: BalanceReport) -> str:
    """Render what balancing did as text for a terminal.

    Parameters
    ----------
    report : BalanceReport
        From `leuko.write_balanced`.

    Returns
    -------
    str
        A table of the classes, then what was skipped.
    """
    plan = report.plan
    names = plan.scheme.names
    width = max(5, *(len(name) for name in names))
    lines = [f"{'class':<{width}}  originals  augmented    total"]
    for name, originals, copies in zip(names, plan.originals, plan.augmented, strict=True):
        lines.append(f"{name:<{width}}  {originals:9d} {copies:10d} {originals + copies:8d}")
    lines.append("")
    if report.dry_run:
        lines.append(f"{plan.total} images would be in {report.out}; nothing was written.")
    else:
        lines.append(
            f"{plan.total} images in {report.out}: {report.written} written, {report.kept} "
            f"kept from an earlier run, {report.seconds:.1f} s."
        )
    lines += [f"skipped {file.path}: {file.reason}" for file in report.rejected]
    return "\n".join([*lines, *report.notes])
