# CA2CL's adversary, in its robust form, around SimCLR.
_base_ = './r18_bs256_ep200.py'
model = dict(
    adversary=dict(type='WeightAdversary', target='backbone.conv1.weight', epsilon=0.1,
                   relative=True, bn='frozen'))
hooks = [dict(type='AdversaryPictures')]
