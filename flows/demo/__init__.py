"""The whole loop on one machine in a few minutes: only the people and the clock are simulated."""
