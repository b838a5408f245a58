"""What PLM_SSL, ConCL and OpenSelfSup published, run by ours: their configs become our configs."""
