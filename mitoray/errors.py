"""One base error, then names a pathologist would use.

Every message names the thing (slide, file, option), the situation, and the remedy.
"""


class MitorayError(Exception):
    """Base of every error that mitoray raises on purpose."""


class SlideError(MitorayError):
    """A slide that cannot be scored. It fails alone; the cohort goes on."""


class SlideNotFound(SlideError):
    """No file at the slide's URI."""


class SlideForbidden(SlideError):
    """The file is there, but may not be read."""


class SlideUnreachable(SlideError):
    """The storage did not answer, or answered with an error that may pass."""


class EmptySlide(SlideError):
    """A file of zero bytes."""


class NotASlide(SlideError):
    """A file that is no tiled TIFF-like slide, whatever its name says."""


class TruncatedSlide(SlideError):
    """A slide file that ends before its own table of contents says it should."""


class SlideChanged(SlideError):
    """A slide file that was written to while it was read."""


class UnknownResolution(SlideError):
    """Neither the metadata nor an override gives µm per pixel."""


class ImplausibleResolution(SlideError):
    """µm per pixel outside 0.1 to 2."""


class AnisotropicPixels(SlideError):
    """Pixels whose width and height differ by more than 2 %."""


class CorruptTile(SlideError):
    """A native tile that cannot be decoded. It costs its region only."""


class RegionTimedOut(SlideError):
    """A region that took longer than any may. It costs itself only."""


class BadTissueMask(SlideError):
    """A given tissue mask that cannot be read or does not fit its slide."""


class InvalidSlideId(SlideError):
    """A slide_id that is empty, too long, or not usable as a file name."""


class DuplicateSlideId(SlideError):
    """Two manifest rows that claim the same slide_id."""


class StorageUnreachable(MitorayError, OSError):
    """A file in storage that could not be read: the message tells neither credentials nor what the storage said."""


class BadManifest(MitorayError):
    """A manifest that cannot be read, or lacks a column it needs."""


class BadModel(MitorayError):
    """A model bundle that cannot be found, read or trusted."""


class BadOption(MitorayError):
    """A setting outside its range, or two settings that exclude each other."""


class RefusedUri(SlideError, BadOption):
    """A URI of a scheme that may not be opened, or of several chained: a slide fails by it alone, an option at once."""


class OutputBelongsToAnotherRun(MitorayError):
    """The output folder holds the results of a different run configuration."""


class OutputUnreachable(MitorayError):
    """The storage of the output folder does not answer, does not allow it, or has no such bucket."""


class OutputFull(MitorayError):
    """No space is left where results, or Ray's own files, are written."""


class ObjectStoreFull(MitorayError):
    """The memory that Ray's processes share holds no more, nor does the disk behind it."""


class RayNotStarted(MitorayError):
    """No Ray could be started or reached to work on."""


class Stopped(MitorayError):
    """The job was told to stop, and did, in good order: the same command goes on."""


class BadLabels(MitorayError):
    """An annotation file that cannot be read, or says something that cannot be."""


class DatasetUnreachable(MitorayError):
    """The service that holds a public dataset did not answer as it should."""


class DatasetForbidden(MitorayError):
    """The service that holds a public dataset refuses to hand out a file."""


class UnsafeFileName(MitorayError):
    """A file name from a remote service that would not stay in its folder."""


class BrokenDownload(MitorayError):
    """A file that could not be fetched whole and unchanged."""


class DatasetIncomplete(MitorayError):
    """A fetched dataset without the files that its manifest or label table needs."""


class NoByteRanges(SlideError):
    """A server that gives whole files only, where slides are read in pieces."""


class BadDetections(MitorayError):
    """A table of detections that cannot be read, or says something that cannot be."""


class BadTrialScores(MitorayError):
    """A table of trial scores that cannot be read, or says something that cannot be."""


class TrackingUnreachable(MitorayError):
    """The MLflow server or database did not take what was to be recorded."""


class TrainingFailed(MitorayError):
    """A training that ended before its last epoch."""


class BadClinicalTable(MitorayError):
    """A clinical table that cannot be read, or lacks a column it needs."""


class TooFewEvents(MitorayError):
    """A comparison of survival with no event, or fewer than it needs, to compare by."""


class UndefinedHazardRatio(MitorayError):
    """A hazard ratio that the data cannot give: its covariate is constant, repeats others, or separates the events."""


class NotARun(MitorayError):
    """A folder that should hold a scored cohort, and does not."""


class TooFewCells(MitorayError):
    """Too few labelled cells, or cells of a class, to be compared with each other."""


class BadDecisions(MitorayError):
    """Decisions of an expert, or the review set they belong to, that cannot be read or say something that cannot be."""


class ExpertsDisagree(MitorayError):
    """Candidates on which experts decided differently, and nobody has the majority."""


class RegistrationRefused(SlideError):
    """A rescan that could not be laid over its original well enough to carry labels over."""


class MirroredRescan(RegistrationRefused):
    """A rescan that is its original's mirror image."""


class BlankSlide(RegistrationRefused):
    """A slide to be registered that shows no tissue."""


class BadRegistration(MitorayError):
    """A file of a registration that cannot be read, or says something that cannot be."""
