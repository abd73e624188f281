"""The PN532's command and status codes (NXP UM0701-02, sections 7.1 to 7.3)."""

from enum import IntEnum


class Command(IntEnum):
    """What a host can ask; the answer's code is one higher."""

    DIAGNOSE = 0x00
    GET_FIRMWARE_VERSION = 0x02
    GET_GENERAL_STATUS = 0x04
    READ_REGISTER = 0x06
    WRITE_REGISTER = 0x08
    READ_GPIO = 0x0C
    WRITE_GPIO = 0x0E
    SET_SERIAL_BAUD_RATE = 0x10
    SET_PARAMETERS = 0x12
    SAM_CONFIGURATION = 0x14
    POWER_DOWN = 0x16
    RF_CONFIGURATION = 0x32
    IN_DATA_EXCHANGE = 0x40
    IN_COMMUNICATE_THRU = 0x42
    IN_DESELECT = 0x44
    IN_JUMP_FOR_PSL = 0x46
    IN_LIST_PASSIVE_TARGET = 0x4A
    IN_PSL = 0x4E
    IN_ATR = 0x50
    IN_RELEASE = 0x52
    IN_SELECT = 0x54
    IN_JUMP_FOR_DEP = 0x56
    RF_REGULATION_TEST = 0x58
    IN_AUTO_POLL = 0x60
    TG_GET_DATA = 0x86
    TG_GET_INITIATOR_COMMAND = 0x88
    TG_GET_TARGET_STATUS = 0x8A
    TG_INIT_AS_TARGET = 0x8C
    TG_SET_DATA = 0x8E
    TG_RESPONSE_TO_INITIATOR = 0x90
    TG_SET_GENERAL_BYTES = 0x92
    TG_SET_META_DATA = 0x94


class Status(IntEnum):
    """The first byte of an answer about a card, without the flags above bit 5."""

    OK = 0x00
    TIMEOUT = 0x01
    CRC = 0x02
    BUFFER_TOO_SMALL = 0x07
    WRONG_PARAMETER = 0x10
    FORMAT = 0x13
    AUTHENTICATION = 0x14
    WRONG_CONTEXT = 0x27
    RELEASED = 0x29
    CARD_SWAPPED = 0x2A
    CARD_DISAPPEARED = 0x2B


STATUS_MASK = 0x3F
MORE_FOLLOWS = 0x40
"""Flag in a status or target byte: this is not the last part."""

BAUD_RATES = (9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600, 1288000)
"""SetSerialBaudRate's parameter is the index."""
DEFAULT_BAUD = 115200
"""After power-on and reset."""
