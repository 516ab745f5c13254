// Routing and the permutation of rows around experts, against formulas in double precision.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "tests/unit/worker/ops/ops_fixture.h"
#include "worker/ops/op.h"

namespace uniquanf {
namespace {

using reference::Empty;
using reference::ExpectClose;
using reference::Values;
using reference::Vector;

class ExpertsOpsTest : public reference::OpsTest {};

struct Routed {
  std::vector<int> experts;
  Vector weights;
};
Routed Route(const ops::RouterShape& shape, const Vector& logits, const Vector& correction,
             const std::vector<int>* chosen = nullptr) {
  Routed routed;
  const int n = shape.num_experts, size = n / shape.num_groups;
  for (size_t t = 0; t < logits.size() / n; ++t) {
    Vector scores(n), choice(n);
    double sum = 0;
    for (int e = 0; e < n; ++e) sum += std::exp(logits[t * n + e]);
    for (int e = 0; e < n; ++e) {
      scores[e] = shape.sigmoid ? 1 / (1 + std::exp(-logits[t * n + e]))
                                : std::exp(logits[t * n + e]) / sum;
      choice[e] = scores[e] + (correction.empty() ? 0 : correction[e]);
    }
    std::vector<std::pair<double, int>> groups;
    for (int g = 0; g < shape.num_groups; ++g) {
      Vector best(choice.begin() + g * size, choice.begin() + (g + 1) * size);
      std::sort(best.rbegin(), best.rend());
      groups.push_back({-(best[0] + (shape.group_by_best || size < 2 ? 0 : best[1])), g});
    }
    std::sort(groups.begin(), groups.end());
    std::vector<std::pair<double, int>> order;
    for (int g = 0; g < shape.top_groups; ++g) {
      const int first = groups[g].second * size;
      for (int e = first; e < first + size; ++e) order.push_back({-choice[e], e});
    }
    std::sort(order.begin(), order.end());
    double total = shape.epsilon;
    std::vector<int> ids;
    for (int j = 0; j < shape.top_k; ++j) {
      ids.push_back(chosen == nullptr ? order[j].second : (*chosen)[t * shape.top_k + j]);
      total += scores[ids.back()];
    }
    for (int id : ids) {
      routed.experts.push_back(id);
      routed.weights.push_back(shape.scale * scores[id] / (shape.normalize ? total : 1));
    }
  }
  return routed;
}

TEST_P(ExpertsOpsTest, RoutersOfEveryRecipeChooseAndDifferentiate) {
  for (bool sigmoid : {false, true}) {
    for (bool normalize : {false, true}) {
      for (int groups : {1, 4}) {
        SCOPED_TRACE(testing::Message() << sigmoid << normalize << groups);
        ops::RouterShape shape;
        shape.num_experts = 8;
        shape.top_k = 3;
        shape.sigmoid = sigmoid;
        shape.normalize = normalize;
        shape.epsilon = 1e-6f;
        shape.scale = 2.5f;
        shape.num_groups = groups;
        shape.top_groups = groups == 1 ? 1 : 2;
        const Tensor logits = Random({6, 8}, 1), correction = Floats({8}, 2, 0.2);
        Tensor experts = Empty(backend_.get(), DType::kInt32, {6, 3});
        Tensor weights = Empty(backend_.get(), DType::kFloat32, {6, 3});
        ops::RouteForward(backend_.get(), shape, logits, &correction, &experts, &weights);
        const Routed expected = Route(shape, Values(logits), Values(correction));
        std::vector<int32_t> ids(18);
        ASSERT_TRUE(backend_->CopyToHost(ids.data(), experts.data(), experts.size_bytes()).ok());
        EXPECT_EQ(std::vector<int>(ids.begin(), ids.end()), expected.experts);
        ExpectClose(Values(weights), expected.weights, DType::kFloat32, 16, "weights");
        const Tensor dweights = Floats({6, 3}, 3);
        Tensor dlogits = Like(logits);
        ops::RouteBackward(backend_.get(), shape, logits, experts, dweights, &dlogits);
        ExpectClose(Values(dlogits),
                    Gradient(Values(logits), Values(dweights),
                             [&](const Vector& x) {
                               return Route(shape, x, {}, &expected.experts).weights;
                             }),
                    act_, 1, "dlogits", 64);
      }
    }
  }
}

// Two rounds: the best logit that is left, and its softmax among the logits close to it.
Routed MixSparsely(const ops::RouterShape& shape, const Vector& logits, const Vector& scales) {
  Routed routed;
  const int n = shape.num_experts;
  for (size_t t = 0; t < logits.size() / n; ++t) {
    const double* l = logits.data() + t * n;
    std::vector<bool> taken(n, false);
    for (int j = 0; j < shape.top_k; ++j) {
      int best = -1;
      for (int e = 0; e < n; ++e) {
        if (!taken[e] && (best < 0 || l[e] > l[best])) best = e;
      }
      double sum = 0;
      for (int e = 0; e < n; ++e) {
        const double distance = (l[best] - l[e]) / std::max(std::fabs(l[e]), l[best]);
        if (!taken[e] && !(distance > 2 * shape.jitter)) sum += std::exp(l[e] - l[best]);
      }
      taken[best] = true;
      routed.experts.push_back(best);
      routed.weights.push_back(shape.scale * scales[best] / sum);
    }
  }
  return routed;
}

TEST_P(ExpertsOpsTest, SparseMixerWithScalesChoosesAndDifferentiates) {
  ops::RouterShape shape;
  shape.num_experts = 8;
  shape.top_k = 2;
  shape.sparse_mixer = true;
  shape.jitter = 0.3f;  // far enough for several experts to be near
  shape.scale = 1.5f;
  const Tensor scales = Floats({8}, 7), logits = Random({9, 8}, 8);
  shape.scales = &scales;
  Tensor experts = Empty(backend_.get(), DType::kInt32, {9, 2});
  Tensor weights = Empty(backend_.get(), DType::kFloat32, {9, 2});
  ops::RouteForward(backend_.get(), shape, logits, nullptr, &experts, &weights);
  const Routed expected = MixSparsely(shape, Values(logits), Values(scales));
  std::vector<int32_t> ids(18);
  ASSERT_TRUE(backend_->CopyToHost(ids.data(), experts.data(), experts.size_bytes()).ok());
  EXPECT_EQ(std::vector<int>(ids.begin(), ids.end()), expected.experts);
  ExpectClose(Values(weights), expected.weights, DType::kFloat32, 16, "weights");
  const Tensor dweights = Floats({9, 2}, 9);
  Tensor dlogits = Like(logits);
  ops::RouteBackward(backend_.get(), shape, logits, experts, dweights, &dlogits);
  ExpectClose(
      Values(dlogits),
      Gradient(Values(logits), Values(dweights),
               [&](const Vector& x) { return MixSparsely(shape, x, Values(scales)).weights; }),
      act_, 1, "dlogits", 64);
}

TEST_P(ExpertsOpsTest, ScalesOfExpertsMultiplyTheirWeights) {
  ops::RouterShape shape;
  shape.num_experts = 6;
  shape.top_k = 2;
  shape.normalize = true;
  const Tensor scales = Floats({6}, 7), logits = Random({5, 6}, 8), dweights = Floats({5, 2}, 9);
  Tensor experts = Empty(backend_.get(), DType::kInt32, {5, 2});
  Tensor plain = Empty(backend_.get(), DType::kFloat32, {5, 2});
  Tensor scaled = Empty(backend_.get(), DType::kFloat32, {5, 2});
  ops::RouteForward(backend_.get(), shape, logits, nullptr, &experts, &plain);
  std::vector<int32_t> ids(10);
  ASSERT_TRUE(backend_->CopyToHost(ids.data(), experts.data(), experts.size_bytes()).ok());
  const std::vector<int> chosen(ids.begin(), ids.end());
  shape.scales = &scales;
  ops::RouteForward(backend_.get(), shape, logits, nullptr, &experts, &scaled);
  const Vector s = Values(scales);
  const auto times_scales = [&](Vector values) {
    for (size_t i = 0; i < values.size(); ++i) values[i] *= s[chosen[i]];
    return values;
  };
  ExpectClose(Values(scaled), times_scales(Values(plain)), DType::kFloat32, 2, "weights");
  Tensor dlogits = Like(logits);
  ops::RouteBackward(backend_.get(), shape, logits, experts, dweights, &dlogits);
  ExpectClose(
      Values(dlogits),
      Gradient(Values(logits), Values(dweights),
               [&](const Vector& x) { return times_scales(Route(shape, x, {}, &chosen).weights); }),
      act_, 1, "dlogits", 64);
}

TEST_P(ExpertsOpsTest, RowsGoToTheirExpertsAndBack) {
  const Tensor x = Random({3, 16}, 1), dy = Random({3, 16}, 2), weights = Floats({3, 2}, 3);
  const Tensor rows = reference::UploadInts(backend_.get(), {2, 0, -1, 1, 0, 2, 1});
  const Tensor positions = reference::UploadInts(backend_.get(), {1, 4, 3, 6, 5, 0});
  const Vector xv = Values(x), d = Values(dy), w = Values(weights);
  const int from[] = {2, 0, -1, 1, 0, 2, 1}, place[] = {1, 4, 3, 6, 5, 0};
  Tensor gathered = Empty(backend_.get(), act_, {7, 16});
  ops::GatherRows(backend_.get(), x, rows, &gathered);
  const Vector g = Values(gathered);
  for (int r = 0; r < 7; ++r) {
    for (int i = 0; i < 16; ++i) {
      EXPECT_EQ(g[r * 16 + i], from[r] < 0 ? 0 : xv[from[r] * 16 + i]);
    }
  }
  const Tensor out = Random({7, 16}, 4);
  const Vector o = Values(out);
  Vector sums(48, 0.0), dweights(6, 0.0), drows(112, 0.0);
  for (int t = 0; t < 3; ++t) {
    for (int j = 0; j < 2; ++j) {
      const int at = place[t * 2 + j];
      for (int i = 0; i < 16; ++i) {
        sums[t * 16 + i] += w[t * 2 + j] * o[at * 16 + i];
        dweights[t * 2 + j] += d[t * 16 + i] * o[at * 16 + i];
        drows[at * 16 + i] = w[t * 2 + j] * d[t * 16 + i];
      }
    }
  }
  Tensor y = Like(x), computed_drows = Like(out);
  Tensor computed_dweights = Empty(backend_.get(), DType::kFloat32, {3, 2});
  ops::CombineRows(backend_.get(), out, positions, &weights, /*accumulate=*/false, &y);
  ExpectClose(Values(y), sums, act_, 1, "sums", 8);
  ops::CombineRows(backend_.get(), out, positions, &weights, /*accumulate=*/true, &y);
  for (double& sum : sums) sum *= 2;
  ExpectClose(Values(y), sums, act_, 2, "sums twice", 8);
  ASSERT_TRUE(backend_->FillZero(computed_drows.data(), computed_drows.size_bytes()).ok());
  ops::CombineRowsBackward(backend_.get(), dy, out, positions, weights, &computed_drows,
                           &computed_dweights);
  ExpectClose(Values(computed_drows), drows, act_, 1, "drows", 8);
  ExpectClose(Values(computed_dweights), dweights, DType::kFloat32, 16, "dweights");
}

INSTANTIATE_TEST_SUITE_P(Devices, ExpertsOpsTest, testing::ValuesIn(reference::DeviceCases()),
                         [](const auto& info) { return reference::DeviceCaseName(info.param); });

}  // namespace
}  // namespace uniquanf
