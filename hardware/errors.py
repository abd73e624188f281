"""What can go wrong between this machine and a card.

    HardwareError
    |- BadSpec              a setting, an option or a card description cannot be read
    |- FeedbackMissing      the lights and the buzzer cannot be used
    |- ReaderError          the reader cannot be used
    |  |- ReaderMissing     there is no such device
    |  |- ReaderForbidden   this user may not open it
    |  |- ReaderBusy        another program holds it
    |  |- ReaderLost        every way to bring it back has failed: somebody has to look at it
    |  `- ReaderFault       one exchange failed; the reader itself climbs the recovery ladder
    |     |- ReaderSilent   no answer in time
    |     |- GarbledAnswer  an answer, but not a frame
    |     |- CommandRejected  the chip does not know the command
    |     |- ReaderGone     the device disappeared under us
    |     `- NoSuchRung     this reader has no such way back: one speed only, or no reset pin
    `- CardError            the reader is well, the card is not
       |- CardGone          it left, or stopped answering
       |- CardRefused       it said no
       `- CardGarbled      it answered something no card should

Whether a card may be an identity is no error: see `hardware.cards.identify`.
"""


class HardwareError(Exception):
    """Something about the reader, a card or the lights cannot be used; str() says what and what to do."""


class BadSpec(HardwareError):
    """A reader, card or light is described in words unknown here; the sentence says which are known."""


class FeedbackMissing(HardwareError):
    """The pins for the lights and the buzzer cannot be used: wrong machine, wrong number, or in use."""


class ReaderError(HardwareError):
    """The card reader cannot be used."""


class ReaderMissing(ReaderError):
    """There is no such device: check the cable, the settings file and raspi-config."""


class ReaderForbidden(ReaderError):
    """This user may not open the device: add it to the device's group."""


class ReaderBusy(ReaderError):
    """Another program holds the device: stop that one first."""


class ReaderLost(ReaderError):
    """The reader did not come back by any means: check its power and wiring, or replace it."""


class ReaderFault(ReaderError):
    """One exchange with the reader failed; the next poll has already tried to mend it."""


class ReaderSilent(ReaderFault):
    """The reader did not answer in time."""


class GarbledAnswer(ReaderFault):
    """The reader's bytes are not a frame, or not the frame that was asked for: noise on the line."""


class CommandRejected(ReaderFault):
    """The reader says that it does not know this command: another chip, or another firmware."""


class ReaderGone(ReaderFault):
    """The device disappeared while it was in use: a loose plug, or a bus error."""


class NoSuchRung(ReaderFault):
    """This reader cannot be brought back that way: the bus has one speed only, or no reset pin is wired."""


class CardError(HardwareError):
    """The reader is well, but the card did not do what was asked: present it again."""


class CardGone(CardError):
    """The card left the field, or stopped answering: present it again, and hold it still."""


class CardRefused(CardError):
    """The card refused the command: wrong key, locked, or not there."""


class CardGarbled(CardError):
    """The card's answer is none that a card of its kind gives: broken, or made to confuse."""
