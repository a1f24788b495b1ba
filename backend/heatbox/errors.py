"""The one error tree: every failure that a person may see has a code, a sentence and a remedy.

    HeatboxError
    ├── PictureError
    │   ├── PictureNotFoundError        picture-not-found
    │   ├── PictureUnreadableError      picture-unreadable
    │   ├── PictureFormatError          picture-format
    │   ├── PictureTooLargeError        picture-too-large
    │   ├── AddressRefusedError         address-refused
    │   ├── PictureFetchError           picture-fetch
    │   ├── PictureSlowError            picture-slow
    │   ├── PictureCacheError           picture-cache
    │   ├── PictureTimeoutError         picture-timeout
    │   ├── PictureMemoryError          picture-memory
    │   └── WorkerDiedError             worker-died
    ├── TasksFileError                  tasks-file
    ├── DatasetError                    dataset
    ├── LabelError
    │   ├── LabelConfigError            label-config
    │   ├── LabelUnknownError           label-unknown
    │   └── LabelAmbiguousError         label-ambiguous
    ├── ModelError
    │   ├── ModelNotFoundError          model-not-found
    │   ├── ModelInvalidError           model-invalid
    │   ├── WeightsUnavailableError     weights-unavailable
    │   ├── StoreUnavailableError       store-unavailable
    │   └── LayerNotFoundError          layer-not-found
    ├── PluginError
    │   ├── PluginNotFoundError         plugin-not-found
    │   ├── PluginBrokenError           plugin-broken
    │   ├── OptionError                 plugin-option
    │   ├── UnsupportedError            explainer-unsupported
    │   ├── NotFittedError              explainer-not-fitted
    │   └── EvidenceError               evidence-invalid
    ├── ServiceError
    │   ├── RequestError                request
    │   ├── AuthenticationError         authentication
    │   ├── RedisUnavailableError       redis-unavailable
    │   ├── PortTakenError              port-taken
    │   ├── StudioError
    │   │   └── StudioAmbiguousError    label-studio-ambiguous
    │   ├── StudioRefusedError          label-studio-refused
    │   └── DeadlineError               deadline
    ├── RunError
    │   ├── RunNotFoundError            run-not-found
    │   ├── RunStateError               run-state
    │   ├── TaskGoneError               task-gone
    │   └── PredictionRefusedError      prediction-refused
    ├── TrainingError
    │   ├── TrainingNotFoundError       training-not-found
    │   ├── TrainingStateError          training-state
    │   ├── TooLittleError              training-too-little
    │   ├── TrainingStalledError        training-stalled
    │   └── TrainingMemoryError         training-memory
    ├── CalibrationError                calibration
    ├── TuningError                     tuning
    ├── ProfileNotFoundError            profile-not-found
    ├── LedgerError                     ledger
    ├── SettingsError                   settings
    ├── OutputError                     output
    └── InternalError                   internal

Only an edge (a command, a route, a job) turns an error into an answer; everything else lets it pass.
"""

from typing import ClassVar

__all__ = [
    "AddressRefusedError",
    "AuthenticationError",
    "CalibrationError",
    "DatasetError",
    "DeadlineError",
    "EvidenceError",
    "HeatboxError",
    "InternalError",
    "LabelAmbiguousError",
    "LabelConfigError",
    "LabelError",
    "LabelUnknownError",
    "LayerNotFoundError",
    "LedgerError",
    "ModelError",
    "ModelInvalidError",
    "ModelNotFoundError",
    "NotFittedError",
    "OptionError",
    "OutputError",
    "PictureCacheError",
    "PictureError",
    "PictureFetchError",
    "PictureFormatError",
    "PictureMemoryError",
    "PictureNotFoundError",
    "PictureSlowError",
    "PictureTimeoutError",
    "PictureTooLargeError",
    "PictureUnreadableError",
    "PluginBrokenError",
    "PluginError",
    "PluginNotFoundError",
    "PortTakenError",
    "PredictionRefusedError",
    "ProfileNotFoundError",
    "RedisUnavailableError",
    "RequestError",
    "RunError",
    "RunNotFoundError",
    "RunStateError",
    "ServiceError",
    "SettingsError",
    "StoreUnavailableError",
    "StudioAmbiguousError",
    "StudioError",
    "StudioRefusedError",
    "TaskGoneError",
    "TasksFileError",
    "TooLittleError",
    "TrainingError",
    "TrainingMemoryError",
    "TrainingNotFoundError",
    "TrainingStalledError",
    "TrainingStateError",
    "TuningError",
    "UnsupportedError",
    "WeightsUnavailableError",
    "WorkerDiedError",
]


class HeatboxError(Exception):
    """A failure with a short code, a sentence that names the value and the reason, and a remedy."""

    code: ClassVar[str] = "heatbox"

    def __init__(self, sentence: str, remedy: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.code}: {self.sentence} {self.remedy}"

    def __reduce__(self) -> tuple[type["HeatboxError"], tuple[str, str]]:
        return type(self), (self.sentence, self.remedy)

    def as_dict(self) -> dict[str, str]:
        """Return the error as JSON-ready text: code, sentence, remedy."""
        return {"code": self.code, "message": self.sentence, "remedy": self.remedy}


class PictureError(HeatboxError):
    """One picture cannot be used; its neighbours are not touched."""

    code = "picture"


class PictureNotFoundError(PictureError):
    """No file has this name."""

    code = "picture-not-found"


class PictureUnreadableError(PictureError):
    """The file is not a picture, is cut off, or its content is damaged."""

    code = "picture-unreadable"


class PictureFormatError(PictureError):
    """The picture has a format or a pixel type that is not supported."""

    code = "picture-format"


class PictureTooLargeError(PictureError):
    """The header announces more bytes, pixels or a longer side than the limits allow."""

    code = "picture-too-large"


class AddressRefusedError(PictureError):
    """A task names an address that the settings do not allow."""

    code = "address-refused"


class PictureFetchError(PictureError):
    """The host of a picture gave no answer, a cut one, or one that is no picture."""

    code = "picture-fetch"


class PictureSlowError(PictureError):
    """The host of a picture took longer than the limit to hand it over."""

    code = "picture-slow"


class PictureCacheError(PictureError):
    """A fetched picture could not be kept on this machine's disk."""

    code = "picture-cache"


class PictureTimeoutError(PictureError):
    """The picture took longer than the limit, and the process that worked on it was ended."""

    code = "picture-timeout"


class PictureMemoryError(PictureError):
    """The picture needed more memory than the limit, and the process that worked on it was ended."""

    code = "picture-memory"


class WorkerDiedError(PictureError):
    """The process that worked on the picture died, also when it had nothing else to do."""

    code = "worker-died"


class TasksFileError(HeatboxError):
    """A Label Studio tasks file is not what Label Studio would export."""

    code = "tasks-file"


class DatasetError(HeatboxError):
    """A data set with labels or boxes cannot be read, or nothing in it can be used."""

    code = "dataset"


class LabelError(HeatboxError):
    """The labels of the classifier and of the project do not fit together."""

    code = "label"


class LabelConfigError(LabelError):
    """The label config is not XML or has no control that heatbox can fill."""

    code = "label-config"


class LabelUnknownError(LabelError):
    """A label was asked for that neither the classifier nor the project has."""

    code = "label-unknown"


class LabelAmbiguousError(LabelError):
    """Two labels of the project claim the same class of the classifier."""

    code = "label-ambiguous"


class ModelError(HeatboxError):
    """A classifier cannot be used."""

    code = "model"


class ModelNotFoundError(ModelError):
    """The model store has no model of this name or version."""

    code = "model-not-found"


class ModelInvalidError(ModelError):
    """A card or a weights file is damaged, unsafe, or the two do not belong together."""

    code = "model-invalid"


class WeightsUnavailableError(ModelError):
    """Published weights could not be downloaded."""

    code = "weights-unavailable"


class StoreUnavailableError(ModelError):
    """The place of a shared model store does not answer, refuses, or needs a package that is not installed."""

    code = "store-unavailable"


class LayerNotFoundError(ModelError):
    """The network has no layer of this name whose output is a map."""

    code = "layer-not-found"


class PluginError(HeatboxError):
    """An explainer or a box fitter cannot be used."""

    code = "plugin"


class PluginNotFoundError(PluginError):
    """Nothing is registered under this name."""

    code = "plugin-not-found"


class PluginBrokenError(PluginError):
    """A registered plugin fails to import, or raised while it worked."""

    code = "plugin-broken"


class OptionError(PluginError):
    """An option has an unknown name or an unusable value."""

    code = "plugin-option"


class UnsupportedError(PluginError):
    """The explainer does not work with this network."""

    code = "explainer-unsupported"


class NotFittedError(PluginError):
    """The explainer must first learn from examples, and has not, or could not."""

    code = "explainer-not-fitted"


class EvidenceError(PluginError):
    """An explainer returned evidence that breaks the contract."""

    code = "evidence-invalid"


class ServiceError(HeatboxError):
    """A part of the running service failed."""

    code = "service"


class RequestError(ServiceError):
    """A request to the web service is not what its protocol says."""

    code = "request"


class AuthenticationError(ServiceError):
    """A request to the web service has no credentials, or wrong ones."""

    code = "authentication"


class RedisUnavailableError(ServiceError):
    """No Redis can be reached or started."""

    code = "redis-unavailable"


class PortTakenError(ServiceError):
    """Another program listens on the port."""

    code = "port-taken"


class StudioError(ServiceError):
    """Label Studio cannot be reached, or answered with an error."""

    code = "label-studio"


class StudioAmbiguousError(StudioError):
    """The answer of Label Studio got lost: what was sent may have been stored."""

    code = "label-studio-ambiguous"


class StudioRefusedError(ServiceError):
    """Label Studio refused what was asked; trying again does not help."""

    code = "label-studio-refused"
    status: int | None = None  # of HTTP, where it was an answer


class DeadlineError(ServiceError):
    """The answer was not ready in time."""

    code = "deadline"


class RunError(HeatboxError):
    """A background run, or one of its tasks, cannot go on."""

    code = "run"


class RunNotFoundError(RunError):
    """The ledger has no run of this number."""

    code = "run-not-found"


class RunStateError(RunError):
    """The run's state does not allow what was asked."""

    code = "run-state"


class TaskGoneError(RunError):
    """The task was deleted from Label Studio while the run went on."""

    code = "task-gone"


class PredictionRefusedError(RunError):
    """Label Studio did not store a prediction that it was sent."""

    code = "prediction-refused"


class TrainingError(HeatboxError):
    """A training cannot be done or go on."""

    code = "training"


class TrainingNotFoundError(TrainingError):
    """The ledger has no training of this number."""

    code = "training-not-found"


class TrainingStateError(TrainingError):
    """The training's state does not allow what was asked."""

    code = "training-state"


class TooLittleError(TrainingError):
    """There is too little to learn from."""

    code = "training-too-little"


class TrainingStalledError(TrainingError):
    """A training showed no progress for a long time."""

    code = "training-stalled"


class TrainingMemoryError(TrainingError):
    """A training needed more memory than its process may have."""

    code = "training-memory"


class CalibrationError(HeatboxError):
    """People's corrections say too little about what a score is worth."""

    code = "calibration"


class TuningError(HeatboxError):
    """People's corrections say too little about which way to boxes is better."""

    code = "tuning"


class ProfileNotFoundError(HeatboxError):
    """There is no profile of this name, or the project has none."""

    code = "profile-not-found"


class LedgerError(HeatboxError):
    """The ledger cannot be opened, read or written."""

    code = "ledger"


class SettingsError(HeatboxError):
    """An environment variable has an unusable value."""

    code = "settings"


class OutputError(HeatboxError):
    """A result cannot be written."""

    code = "output"


class InternalError(HeatboxError):
    """A defect of heatbox or of a library it uses; the log has the details."""

    code = "internal"
