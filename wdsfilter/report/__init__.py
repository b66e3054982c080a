"""A run as one page to look at: ledgers, and a seeded sample of pictures, become a self-contained HTML file."""
