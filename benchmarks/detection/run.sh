#!/usr/bin/env bash
# One fine-tune of a pretrained backbone: the path of ConCL and CA2CL, where datasets/ and converted_weights/ lie.
# It runs segmentation/detection/run.sh with the same arguments.
exec bash "$(dirname "$0")/../../segmentation/detection/run.sh" "$@"
