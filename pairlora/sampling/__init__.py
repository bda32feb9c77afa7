"""Pictures drawn with style guidance, sharing what they can."""
