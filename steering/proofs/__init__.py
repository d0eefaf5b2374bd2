"""Proof that an exported file does elsewhere what the vector does here."""
