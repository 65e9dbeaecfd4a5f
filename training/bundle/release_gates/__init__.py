"""The release gates: conditions that must hold before a bundle may ship."""
