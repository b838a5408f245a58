# The published run: 2 GPUs, from ImageNet weights:
#   torchrun --nproc_per_node=2 tools/train.py configs/CA2CL/r18_bs1792_ep100.py \
#       --pretrained resnet18-f37072fd.pth
_base_ = [
    '../_base_/models/ca2cl_r18.py',
    '../_base_/datasets/nct_crc_strong_weak.py',
    '../_base_/schedules/adam_cosine_ep100.py',
    '../_base_/runtime.py',
]
