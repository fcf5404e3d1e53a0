"""Who may call, how often, and what is refused at the door."""
