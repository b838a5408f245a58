# VICRegL (arXiv 2210.01571).
model = dict(
    type='VICRegL',
    backbone=dict(type='ResNet', depth=18, norm_cfg=dict(type='BN')),
    projector=dict(type='Expander', channels=(8192, 8192, 8192), norm='BN'),
    maps_projector=dict(type='Expander', channels=(512, 512, 512), norm='BN'),
    # The share of whole views: alpha * global + (1 - alpha) * local.
    alpha=0.75,
    inv_coeff=25.0,
    var_coeff=25.0,
    cov_coeff=1.0,
    num_matches=(20, 4),
    l2_all_matches=True)
