# CA2CL's adversary, in its robust form, around PLM: the query encoder is attacked.
_base_ = './r18_bs256_ep200_lambda_0.5.py'
model = dict(
    adversary=dict(type='WeightAdversary', target='backbone.conv1.weight', epsilon=0.1,
                   relative=True, bn='frozen'))
hooks = [dict(type='AdversaryPictures')]
