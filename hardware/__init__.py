"""Card readers, lights and sounds, and the emulated reader beside the real one. See README.md."""
