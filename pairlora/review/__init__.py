"""What people decide about adapters, and what is published of it."""
