"""Lamps and a buzzer on the Pi's pins, through gpiozero."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from typing import Any

from gpiozero import LED, TonalBuzzer
from gpiozero.tones import Tone

from hardware.errors import BadSpec, FeedbackMissing
from hardware.patterns import DARK, PATTERNS, Lamp, PatternPlayer, Step
from hardware.signals import Signal

_OCTAVES = 3
"""Around 440 Hz: the buzzer reaches from 55 to 3520 Hz."""
_PINS = frozenset(map(str, range(28)))


@dataclass(frozen=True, slots=True)
class Pins:
    """BCM numbers. The buzzer is passive (it needs a tone), on a pin with hardware PWM where there is one."""

    green: int = 17
    red: int = 27
    amber: int = 22
    buzzer: int = 18


class GpioFeedback:
    """Three lamps and a buzzer. The text has nowhere to go."""

    def __init__(self, pins: Pins, *, pin_factory: Any = None, pace: float = 1.0) -> None:
        with ExitStack() as devices:
            try:
                self._lamps = {
                    lamp: devices.enter_context(LED(pin, pin_factory=pin_factory))
                    for lamp, pin in (
                        (Lamp.GREEN, pins.green),
                        (Lamp.RED, pins.red),
                        (Lamp.AMBER, pins.amber),
                    )
                }
                self._buzzer = devices.enter_context(
                    TonalBuzzer(pins.buzzer, octaves=_OCTAVES, pin_factory=pin_factory)
                )
            except Exception as error:  # each pin library has errors of its own
                raise FeedbackMissing(
                    f"The pins for lights and buzzer cannot be used ({error}). On a Pi, check their numbers"
                    " and that nothing else holds them; elsewhere, set the feedback to console."
                ) from error
            self._devices = devices.pop_all()
        self._player = PatternPlayer(self._apply, pace=pace)
        self._closed = False

    def show(self, signal: Signal, text: str = "") -> None:
        if not self._closed:
            self._player.play(PATTERNS[signal])

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._player.close()
        self._apply(Step(DARK))
        self._devices.close()

    def _apply(self, step: Step) -> None:
        for lamp, led in self._lamps.items():
            led.value = lamp in step.lamps
        if step.tone_hz:
            self._buzzer.play(Tone(frequency=step.tone_hz))
        else:
            self._buzzer.stop()


def open_gpio_feedback(options: Sequence[str], pin_factory: Any = None) -> GpioFeedback:
    """The feedback for options such as `green=5`. Raises BadSpec or FeedbackMissing."""
    pins = Pins()
    names = [pin.name for pin in fields(Pins)]
    for option in options:
        name, _, number = option.partition("=")
        if name not in names or number not in _PINS:
            raise BadSpec(f'"{option}": expected PIN=0 to 27, with PIN one of {", ".join(names)}.')
        pins = replace(pins, **{name: int(number)})
    return GpioFeedback(pins, pin_factory=pin_factory)
