"""Every error that harkd raises on purpose.

::

    HarkdError                  message says what is wrong, `mend` says what to do
    ├── SettingsError           one or more faults of the settings, each with its path
    ├── PhrasesError            one or more faults of the phrases, each with its place
    ├── AudioError              a microphone, a file or stdin cannot be read (mostly worth a retry)
    │   └── AudioFileError      a file is no audio, or cannot be opened (never worth a retry)
    ├── ModelError              a model cannot be used
    │   ├── ModelMissingError   it is not installed
    │   ├── ModelDamagedError   a file is missing, truncated or altered
    │   ├── ModelPullError      it cannot be fetched (network, disk, index)
    │   ├── ModelTooLargeError  it needs more memory than there is
    │   └── DeviceError         it does not run on the device that is required
    ├── RecognitionError        the recognizer failed on one utterance
    ├── CommandError            what was sent to one of our topics is no command
    ├── StateError              what must survive a restart cannot be kept
    ├── ServiceError            the service cannot be installed, removed or asked
    ├── BrokerError             the MQTT broker cannot be used
    │   ├── BrokerRefusedError  it answered, and said no (login, protocol, rights)
    │   └── BrokerUntrustedError  its certificate does not prove who it is
    ├── DaemonError             the running daemon cannot be asked how it is
    └── OutboxError             the file of waiting finals cannot be used now
        ├── OutboxFullError     the disk has no room for it
        └── OutboxBrokenError   it is damaged, or none that this version knows

An edge translates its library's exceptions into these (``raise … from``).
"""

from __future__ import annotations

COMMANDS = ("harkd ", "pip ", "sudo ")


class HarkdError(Exception):
    """Base of all errors that a user can mend."""

    exit_code = 1
    """What the program ends with."""

    def __init__(self, message: str, mend: str = "") -> None:
        super().__init__(message)
        self.message = message
        """What is wrong, in one sentence without a full stop."""
        self.mend = mend
        """What to do about it, in one sentence without a full stop; may be empty."""

    def __str__(self) -> str:
        if not self.mend:
            return self.message
        command = self.mend.startswith(COMMANDS)
        mend = self.mend if command else self.mend[0].upper() + self.mend[1:]
        return f"{self.message}. {mend}."


class SettingsError(HarkdError):
    """The settings have one or more faults; `message` lists them all, one a line."""


class PhrasesError(HarkdError):
    """The phrases have one or more faults; `message` lists them all, one a line."""


class AudioError(HarkdError):
    """Audio cannot be captured or read."""


class AudioFileError(AudioError):
    """A file is no audio or cannot be opened."""


class ModelError(HarkdError):
    """A model cannot be used."""


class ModelMissingError(ModelError):
    """The model is not installed."""


class ModelDamagedError(ModelError):
    """A file of the model is missing, truncated or altered."""


class ModelPullError(ModelError):
    """The model cannot be fetched."""


class ModelTooLargeError(ModelError):
    """The model needs more memory than this process may have."""


class DeviceError(ModelError):
    """The model does not run on the device that `recognizer.require_device` wants."""

    exit_code = 78
    """EX_CONFIG of sysexits.h: a restart does not help; the units do not restart after it."""


class RecognitionError(HarkdError):
    """The recognizer failed on one utterance."""


class CommandError(HarkdError):
    """A message on one of the daemon's own topics asks for nothing that there is."""


class StateError(HarkdError):
    """What must survive a restart cannot be written."""


class ServiceError(HarkdError):
    """systemd's service of harkd cannot be installed, removed or asked."""


class BrokerError(HarkdError):
    """The MQTT broker cannot be reached or used."""


class BrokerRefusedError(BrokerError):
    """The MQTT broker answered and refused."""


class BrokerUntrustedError(BrokerError):
    """The MQTT broker has no certificate that proves who it is."""


class OutboxError(HarkdError):
    """The file in which finals wait for the broker cannot be used."""


class OutboxFullError(OutboxError):
    """The disk has no room for the file of waiting finals."""


class OutboxBrokenError(OutboxError):
    """The file of waiting finals is damaged, or of a newer version."""


class DaemonError(HarkdError):
    """The running daemon cannot be asked how it is."""
