// conv_lanes.h - fast kernels of conv2d and its gradients for few channels (lanes.h), f32, stride
// 1, no groups. Each declines what it is not for.
#ifndef DLUA_CONV_LANES_H
#define DLUA_CONV_LANES_H

#include "../op.h"

dlua_status dlua_conv_lanes(const dlua_args *a);
dlua_status dlua_conv_lanes_input_grad(const dlua_args *a);
dlua_status dlua_conv_lanes_weight_grad(const dlua_args *a);

#endif
