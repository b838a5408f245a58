"""From the official archives and folders of public datasets to what we train on."""
