"""The families of devices, each imported when it is first asked for."""
