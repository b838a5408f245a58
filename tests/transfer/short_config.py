"""A config that trains on tiny glands in seconds."""

from pathlib import Path

DETECTION = Path(__file__).resolve().parents[2] / 'segmentation' / 'detection'
SHORT = DETECTION / 'configs' / 'GlaS' / 'GlaS_R_18_FPN_short.yaml'
TINY = ['MODEL.FPN.OUT_CHANNELS', '32', 'MODEL.ROI_BOX_HEAD.FC_DIM', '32',
        'MODEL.ROI_MASK_HEAD.CONV_DIM', '16', 'INPUT.MIN_SIZE_TRAIN', '(64, 96)',
        'INPUT.MIN_SIZE_TEST', '64', 'SOLVER.IMS_PER_BATCH', '2', 'SOLVER.AMP.ENABLED', 'False',
        'TEST.PRECISE_BN.NUM_ITER', '2', 'MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE', '8',
        'MODEL.RPN.PRE_NMS_TOPK_TRAIN', '50', 'MODEL.RPN.POST_NMS_TOPK_TRAIN', '20',
        'MODEL.RPN.PRE_NMS_TOPK_TEST', '50', 'MODEL.RPN.POST_NMS_TOPK_TEST', '20']
