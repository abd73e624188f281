"""A PN532 with cards in its field, byte-exact enough for clients that were written for the real one.

Pure in the middle (`chip`, `firmware`, `radio`, the cards: bytes and times in, bytes out), with two rims: a
pty for the serial line (`pty_line`, `__main__`) and buses for I2C and SPI (`buses`).
"""
