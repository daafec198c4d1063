"""One tree of errors. Each message says what was received, what was expected and how to mend it."""

from __future__ import annotations

__all__ = [
    "AdaptError",
    "BatchError",
    "BundleError",
    "DataError",
    "DeviceError",
    "ImageError",
    "InstallError",
    "LeukoError",
    "MissingExtraError",
    "OutputError",
    "RecipeError",
    "TrainingError",
    "UsageError",
]


class LeukoError(Exception):
    """Base of every error that Leuko raises on purpose.

    Attributes
    ----------
    exit_code : int
        What the command line returns for it.
    """

    exit_code = 1


class UsageError(LeukoError):
    """The call itself is wrong: an unknown option, a flag that needs another."""

    exit_code = 2


class DataError(LeukoError):
    """A data set cannot be used as given: empty, a class missing, an extra folder, a leak."""


class ImageError(DataError):
    """One file is not a usable image.

    Parameters
    ----------
    reason : str
        A short, stable, machine-readable reason, one of `leuko.imaging.decode.REJECT_REASONS`.
    detail : str
        One sentence for a person.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        """Pickle with both arguments, so that a worker process can send it home."""
        return (type(self), (self.reason, self.detail))

    def without_frames(self) -> ImageError:
        """Give it anew, to be kept: the frames that this one came through hold the whole picture.

        Returns
        -------
        ImageError
            With the same reason and detail.
        """
        return ImageError(self.reason, self.detail)


class RecipeError(LeukoError):
    """A recipe has an unknown key, a value out of range or two settings at odds."""


class BundleError(LeukoError):
    """A model bundle is damaged, from a newer version, or gives other answers than it promised."""


class TrainingError(LeukoError):
    """Training cannot go on: the loss is not finite, or a run folder belongs to another recipe."""


class AdaptError(LeukoError):
    """A model cannot be fitted to a microscope: too few images or labels, or it gets no better."""


class OutputError(LeukoError):
    """Something cannot be written: no permission, a full disk, a file in the way."""


class BatchError(LeukoError):
    """An engine cannot work: no cluster at the address, or workers that end before they begin."""


class DeviceError(LeukoError):
    """A device that was asked for cannot be used: no graphics processor, or not its libraries."""


class InstallError(LeukoError):
    """A package that every install of Leuko has is missing or broken.

    Parameters
    ----------
    package : str
        As pip calls it.
    why : str
        What its import or its first use said.
    """

    def __init__(self, package: str, why: str) -> None:
        super().__init__(
            f"The package {package} is missing or broken ({why}). "
            f"Install it anew: pip install --force-reinstall {package}"
        )
        self.package = package
        self.why = why

    def __reduce__(self) -> tuple[type[InstallError], tuple[str, str]]:
        """Pickle with the original arguments."""
        return (type(self), (self.package, self.why))


class MissingExtraError(LeukoError):
    """A command needs packages that this install does not have.

    Parameters
    ----------
    what : str
        What was asked for, as the subject of the sentence.
    extra : str
        The name of Leuko's extra that brings it.
    package : str
        The package that could not be imported.
    """

    def __init__(self, what: str, extra: str, package: str) -> None:
        super().__init__(
            f"{what} needs the package {package!r}, which is not installed. "
            f"In the folder of Leuko's source, install it with: pip install '.[{extra}]'"
        )
        self.what = what
        self.extra = extra
        self.package = package

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str, str]]:
        """Pickle with the original arguments."""
        return (type(self), (self.what, self.extra, self.package))
