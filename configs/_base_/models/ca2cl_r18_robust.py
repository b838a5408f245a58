# CA2CL without what is fragile in the published form: centroids that chase their own loss,
# empty clusters in the softmax, an attack whose effect depends on how the weights start, and
# running statistics that mix clean and attacked passes.
_base_ = './ca2cl_r18.py'
model = dict(
    cluster=dict(detach_centroids=True, empty='mask'),
    adversary=dict(epsilon=0.1, relative=True, bn='frozen'))
