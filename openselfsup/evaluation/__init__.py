"""What features are worth: probes, fine-tuning, nearest neighbours, scores."""
