#!/usr/bin/env bash
# Five fine-tunes of a pretrained backbone: the path of ConCL and CA2CL, where datasets/ and converted_weights/ lie.
# It runs segmentation/detection/run_ft.sh with the same arguments.
exec bash "$(dirname "$0")/../../segmentation/detection/run_ft.sh" "$@"
