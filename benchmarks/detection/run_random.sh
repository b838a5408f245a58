#!/usr/bin/env bash
# One detector from random weights: the path of ConCL and CA2CL, where datasets/ and converted_weights/ lie.
# It runs segmentation/detection/run_random.sh with the same arguments.
exec bash "$(dirname "$0")/../../segmentation/detection/run_random.sh" "$@"
