// The one conversion between jobs, tasks and reports as plain values (common/job) and as messages;
// API, client and the server's stored records all go through it. Ids and resource names pass as
// they are; who needs the other kind puts it there afterwards.
// Thread safety: free functions, no state. Enum values of a later version become kUnknown.
#ifndef UNIQUANF_COMMON_RPC_JOB_PROTO_H_
#define UNIQUANF_COMMON_RPC_JOB_PROTO_H_

#include <vector>

#include "common/job/job.h"
#include "common/job/loss_history.h"
#include "common/job/report.h"
#include "uniquanf/v1/artifact.pb.h"
#include "uniquanf/v1/job.pb.h"
#include "uniquanf/v1/task.pb.h"

namespace uniquanf {

// The members of JobWish only.
void WishToProto(const JobWish& wish, v1::Job* proto);
void WishFromProto(const v1::Job& proto, JobWish* wish);

// Everything but name, spec, progress and report.
void JobFieldsToProto(const JobFields& job, v1::Job* proto);
void JobFieldsFromProto(const v1::Job& proto, JobFields* job);

void ProgressToProto(const JobProgress& progress, v1::JobProgress* proto);
JobProgress ProgressFromProto(const v1::JobProgress& proto);

// Everything but name and progress.
void TaskFieldsToProto(const TaskFields& task, v1::Task* proto);
void TaskFieldsFromProto(const v1::Task& proto, TaskFields* task);

void TaskProgressToProto(const TaskProgress& progress, v1::TaskProgress* proto);
// At most kMaxPhases phases.
TaskProgress TaskProgressFromProto(const v1::TaskProgress& proto);

// What a worker says is bounded here: more phases, or longer names, are cut off.
inline constexpr int kMaxPhases = 16;
inline constexpr int kMaxModuleMetrics = 64;
using PhaseTimesProto = google::protobuf::RepeatedPtrField<v1::PhaseTime>;
void PhasesToProto(const std::vector<PhaseTime>& phases, PhaseTimesProto* proto);
std::vector<PhaseTime> PhasesFromProto(const PhaseTimesProto& proto);
// The points after step `after`.
void HistoryToProto(const LossHistory& history, int64_t after, v1::LossHistory* proto);
// Appends the points that follow.
void AppendHistory(const v1::LossHistory& proto, LossHistory* history);
void WorkToProto(const JobWork& work, v1::JobWork* proto);
// Numbers below 0 count as 0.
JobWork WorkFromProto(const v1::JobWork& proto);
using ModulesProto = google::protobuf::RepeatedPtrField<v1::ModuleMetrics>;
void ModulesToProto(const std::vector<ModuleMetrics>& modules, ModulesProto* proto);
// Of more than kMaxModuleMetrics those with the largest error.
std::vector<ModuleMetrics> ModulesFromProto(const ModulesProto& proto);

void ArtifactToProto(const ArtifactInfo& artifact, v1::Artifact* proto);
ArtifactInfo ArtifactFromProto(const v1::Artifact& proto);

void ReportToProto(const JobReport& report, v1::JobReport* proto);
JobReport ReportFromProto(const v1::JobReport& proto);

TaskKind TaskKindFromProto(v1::Task::Kind kind);
v1::Task::Kind TaskKindToProto(TaskKind kind);
FailureClass FailureClassFromProto(v1::FailureClass failure_class);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_RPC_JOB_PROTO_H_
