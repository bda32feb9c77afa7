"""Dual LoRAs of many pairs trained on one frozen base."""
