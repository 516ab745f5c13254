// The CPU's implementations of worker/ops/op.h: same signatures, shapes already checked by op.cc.
//
// Matrix products go through single-threaded OpenBLAS in pieces of fixed size, the rest are plain
// loops over chunks of fixed size; so the bits do not depend on the number of threads.
#ifndef UNIQUANF_WORKER_OPS_OP_CPU_H_
#define UNIQUANF_WORKER_OPS_OP_CPU_H_

#include "worker/ops/op.h"

namespace uniquanf::ops::cpu {

void LinearForward(Backend* backend, const Tensor& x, const Tensor& w, const Tensor* bias,
                   Tensor* y);
void LinearBackwardInput(Backend* backend, const Tensor& dy, const Tensor& w, bool accumulate,
                         Tensor* dx);
void LinearBackwardWeight(Backend* backend, const Tensor& dy, const Tensor& x, bool accumulate,
                          Tensor* dw);
void RmsNormForward(Backend* backend, const Tensor& x, const Tensor& weight, float eps, Tensor* y,
                    Tensor* inv_rms);
void RmsNormBackward(Backend* backend, const Tensor& dy, const Tensor& x, const Tensor& weight,
                     const Tensor& inv_rms, bool accumulate, Tensor* dx);
void AddRmsNormForward(Backend* backend, const Tensor& a, const Tensor& b, const Tensor& weight,
                       float eps, Tensor* sum, Tensor* y, Tensor* inv_rms);
void Rope(Backend* backend, const Tensor& cos, const Tensor& sin, int num_heads, bool inverse,
          Tensor* x);
void AttentionForward(Backend* backend, const AttentionShape& shape, const Tensor& q,
                      const Tensor& k, const Tensor& v, Tensor* out, Tensor* lse);
size_t AttentionBackwardScratchBytes(const Backend& backend, const AttentionShape& shape);
void AttentionBackward(Backend* backend, const AttentionShape& shape, const Tensor& dout,
                       const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                       const Tensor& lse, Tensor* scratch, Tensor* dq, Tensor* dk, Tensor* dv);
void SwiGluForward(Backend* backend, const Tensor& gate, const Tensor& up, Tensor* y);
void SwiGluBackward(Backend* backend, const Tensor& dy, const Tensor& gate, const Tensor& up,
                    Tensor* dgate, Tensor* dup);
void Add(Backend* backend, const Tensor& a, const Tensor& b, Tensor* out);
void MixInputs(Backend* backend, const StepParams* params, uint64_t seed, double prob,
               const Tensor* x_q, const Tensor& x_fp, int batch, Tensor* out);
size_t MseLossScratchBytes(const Backend& backend, int64_t num_elements);
void MseLoss(Backend* backend, const StepParams* params, const Tensor& y, const Tensor& targets,
             int batch, int num_parts, Tensor* scratch, Tensor* dy, Tensor* loss);
void Embedding(Backend* backend, const Tensor& ids, const Tensor& table, Tensor* out);
void CrossEntropy(Backend* backend, const Tensor& logits, const Tensor& targets, Tensor* nll);
void Cast(Backend* backend, const Tensor& src, Tensor* dst);

}  // namespace uniquanf::ops::cpu

#endif  // UNIQUANF_WORKER_OPS_OP_CPU_H_
