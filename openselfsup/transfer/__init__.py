"""What a pretrained backbone is fine-tuned into: instance and semantic segmentation."""
