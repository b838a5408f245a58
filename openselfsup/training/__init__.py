"""What trains anything, pretraining and fine-tuning alike; knows no configs."""
