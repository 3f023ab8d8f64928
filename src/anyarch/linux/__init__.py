"""Linux programs: loading, system calls, signals. See README.md in this folder."""
