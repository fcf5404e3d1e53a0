"""The installation on this machine: what `kalimtak up` starts, and `kalimtak down` stops."""
