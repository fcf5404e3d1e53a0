"""How answers and feedback are kept, whatever happens to the database."""
