"""The demonstration: plays real input into the running node over DDS and shows what comes back."""
