"""Checkpoints: safe reading, atomic writing, naming schemes, and loading into a backbone."""

from .backbone import (
    BackboneRecord,
    backbone_record,
    channels_of,
    describe_backbone,
    described_parts,
    prefix_of_backbone,
)
from .described import Description, description_of
from .loading import LoadReport, check_training_state, load_backbone_weights
from .names import (
    Architecture,
    architecture_of,
    backbone_state_dict,
    detect,
    from_detectron2,
    summary,
    to_detectron2,
    weights_of,
)
from .plain_networks import plain_weights
from .published import (
    published_method,
    training_state_from_published,
    training_state_to_published,
)
from .reading import load
from .transformers import (
    Transformer,
    authors_feature,
    fitted_transformer,
    told_resizing,
    transformer_config,
    transformer_of,
    usual_resizing,
)
from .values import refuse_spoilt
from .writing import save

__all__ = ['Architecture', 'BackboneRecord', 'Description', 'LoadReport', 'Transformer',
           'architecture_of', 'authors_feature', 'backbone_record', 'backbone_state_dict',
           'channels_of', 'check_training_state', 'describe_backbone', 'described_parts',
           'description_of', 'detect', 'fitted_transformer', 'from_detectron2', 'load',
           'load_backbone_weights', 'plain_weights', 'prefix_of_backbone', 'published_method',
           'refuse_spoilt', 'save', 'summary', 'to_detectron2', 'told_resizing',
           'training_state_from_published', 'training_state_to_published', 'transformer_config',
           'transformer_of', 'usual_resizing', 'weights_of']
