// Control groups' limits, read from trees of files as kernels, container engines and Kubernetes
// make them.
#include "common/base/machine_resources.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <initializer_list>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/support/temp_dir.h"

namespace uniquanf {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;
// As version 1 writes "no limit" with pages of 4 KiB and of 64 KiB.
constexpr const char* kNoLimit4 = "9223372036854771712\n";
constexpr const char* kNoLimit64 = "9223372036854710272\n";

class MachineResourcesTest : public testing::Test {
 protected:
  MachineResourcesTest() {
    Write("proc/meminfo",
          "MemTotal:       536870912 kB\nMemFree:         1000000 kB\n"
          "MemAvailable:   419430400 kB\nBuffers:               0 kB\n");
  }
  void Write(const std::string& path, const std::string& text) {
    WriteFile(root_.File(path), text);
  }
  // The files of one group.
  void Group(const std::string& directory,
             std::initializer_list<std::pair<const char*, const char*>> files) {
    for (const auto& [name, text] : files) Write(absl::StrCat(directory, "/", name), text);
  }
  // Version 2 alone, mounted as systemd does; `shown` is the group that the mount point shows.
  void Version2(const std::string& group, const std::string& shown = "/") {
    Write("proc/self/cgroup", absl::StrCat("0::", group, "\n"));
    Write("proc/self/mountinfo",
          absl::StrCat("22 28 0:21 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n29 22 0:26 ", shown,
                       " /sys/fs/cgroup rw,nosuid shared:4 master:2 - cgroup2 cgroup2 rw\n"));
  }
  MachineResources Read() const { return ReadMachineResources(root_.path()); }

  TempDir root_;
};

int Affinity() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
}

TEST_F(MachineResourcesTest, WithoutGroupsTheMachineIsAllThereIs) {
  const MachineResources resources = Read();
  EXPECT_EQ(resources.memory_bytes, 512 * kGiB);
  EXPECT_EQ(resources.available_memory_bytes, 400 * kGiB);
  EXPECT_FALSE(resources.memory_is_limited);
  EXPECT_EQ(resources.num_cpus, Affinity());
}

TEST_F(MachineResourcesTest, ALimitOnAddressSpaceLimitsMemory) {
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  Write("proc/self/statm", "100000 5000 2000 10 0 4000 0\n");
  Write("proc/self/limits",
        "Limit                     Soft Limit           Hard Limit           Units     \n"
        "Max cpu time              unlimited            unlimited            seconds   \n"
        "Max address space         8589934592           unlimited            bytes     \n");
  MachineResources resources = Read();
  EXPECT_TRUE(resources.memory_is_limited);
  EXPECT_EQ(resources.memory_bytes, 8 * kGiB);
  EXPECT_EQ(resources.free_address_space_bytes, 8 * kGiB - 100000 * page);
  EXPECT_EQ(resources.available_memory_bytes, 8 * kGiB - 100000 * page);
  Write("proc/self/limits",
        "Max address space         unlimited            unlimited            bytes     \n");
  resources = Read();
  EXPECT_FALSE(resources.memory_is_limited);
  EXPECT_EQ(resources.free_address_space_bytes, UINT64_MAX);
  Write("proc/self/limits", "Max address space         4096           unlimited   bytes\n");
  EXPECT_EQ(Read().free_address_space_bytes, 0u);
}

TEST_F(MachineResourcesTest, OwnMemoryIsWhatNobodyElseHas) {
  Write("proc/self/statm", "100000 5000 2000 10 0 4000 0\n");
  EXPECT_EQ(Read().own_memory_bytes, 3000u * static_cast<uint64_t>(sysconf(_SC_PAGESIZE)));
}

TEST_F(MachineResourcesTest, AMissingProcLimitsNothing) {
  const MachineResources resources = ReadMachineResources(root_.File("nowhere"));
  EXPECT_EQ(resources.memory_bytes, 0u);
  EXPECT_FALSE(resources.memory_is_limited);
  EXPECT_GE(resources.num_cpus, 1);
}

TEST_F(MachineResourcesTest, Version2) {
  Version2("/system.slice/uniquanf.service");
  Group("sys/fs/cgroup/system.slice/uniquanf.service",
        {{"memory.max", "1073741824\n"},
         {"memory.high", "max\n"},
         {"memory.current", "629145600\n"},
         {"memory.stat",
          "anon 104857600\nfile 524288000\ninactive_file 314572800\n"
          "active_file 104857600\nslab 1\n"},
         {"cpu.max", "100000 100000\n"}});
  const MachineResources resources = Read();
  EXPECT_EQ(resources.memory_bytes, kGiB);
  EXPECT_TRUE(resources.memory_is_limited);
  // 600 MiB are in use, 400 MiB of that are files which the kernel drops when memory is asked for.
  EXPECT_EQ(resources.available_memory_bytes, kGiB - (uint64_t{200} << 20));
  EXPECT_EQ(resources.num_cpus, 1);
}

TEST_F(MachineResourcesTest, Version2WithoutLimits) {
  Version2("/a");
  Group("sys/fs/cgroup/a", {{"memory.max", "max\n"},
                            {"memory.high", "max\n"},
                            {"memory.current", "629145600\n"},
                            {"cpu.max", "max 100000\n"}});
  const MachineResources resources = Read();
  EXPECT_EQ(resources.memory_bytes, 512 * kGiB);
  EXPECT_EQ(resources.available_memory_bytes, 400 * kGiB);
  EXPECT_FALSE(resources.memory_is_limited);
  EXPECT_EQ(resources.num_cpus, Affinity());
}

TEST_F(MachineResourcesTest, TheHighMarkCountsWhereItIsLower) {
  Version2("/a");
  Group("sys/fs/cgroup/a", {{"memory.max", "2147483648\n"}, {"memory.high", "1073741824\n"}});
  EXPECT_EQ(Read().memory_bytes, kGiB);
}

// A pod's limit lies above its containers' groups.
TEST_F(MachineResourcesTest, GroupsAboveLimitToo) {
  Version2("/kubepods/pod1/worker");
  Group("sys/fs/cgroup/kubepods", {{"memory.max", "68719476736\n"}, {"cpu.max", "max 100000\n"}});
  Group("sys/fs/cgroup/kubepods/pod1", {{"memory.max", "1073741824\n"},
                                        {"memory.current", "805306368\n"},
                                        {"memory.stat", "inactive_file 0\nactive_file 0\n"},
                                        {"cpu.max", "50000 100000\n"}});
  Group("sys/fs/cgroup/kubepods/pod1/worker", {{"memory.max", "max\n"},
                                               {"memory.current", "1048576\n"},
                                               {"memory.stat", "inactive_file 0\n"},
                                               {"cpu.max", "max 100000\n"}});
  const MachineResources resources = Read();
  EXPECT_EQ(resources.memory_bytes, kGiB);
  EXPECT_EQ(resources.available_memory_bytes, kGiB / 4) << "a neighbour in the pod holds the rest";
  EXPECT_EQ(resources.num_cpus, 1) << "half a processor is one thread";
}

TEST_F(MachineResourcesTest, QuotasAreRoundedUp) {
  if (Affinity() < 2) GTEST_SKIP() << "this process may use one processor only";
  Version2("/a");
  Write("sys/fs/cgroup/a/cpu.max", "100001 100000\n");
  EXPECT_EQ(Read().num_cpus, 2);
  Write("sys/fs/cgroup/a/cpu.max", "1000 100000\n");
  EXPECT_EQ(Read().num_cpus, 1);
  Write("sys/fs/cgroup/a/cpu.max", "6400000 100000\n");
  EXPECT_EQ(Read().num_cpus, Affinity()) << "a quota gives no processors";
}

// With a namespace of its own for groups a container sees itself as the root.
TEST_F(MachineResourcesTest, InANamespaceTheMountPointIsTheGroup) {
  Version2("/");
  Group("sys/fs/cgroup", {{"memory.max", "1073741824\n"}, {"cpu.max", "100000 100000\n"}});
  EXPECT_EQ(Read().memory_bytes, kGiB);
  EXPECT_EQ(Read().num_cpus, 1);
}

// Without one the path is the host's and the mount shows the container's group.
TEST_F(MachineResourcesTest, AMountOfTheGroupAlone) {
  Version2("/docker/0123", /*shown=*/"/docker/0123");
  Write("sys/fs/cgroup/memory.max", "1073741824\n");
  EXPECT_EQ(Read().memory_bytes, kGiB);
  Version2("/docker/0123/inner", /*shown=*/"/docker/0123");
  Write("sys/fs/cgroup/inner/memory.max", "536870912\n");
  EXPECT_EQ(Read().memory_bytes, kGiB / 2);
  // A name that only begins alike is another group.
  Version2("/docker/01234", /*shown=*/"/docker/0123");
  EXPECT_EQ(Read().memory_bytes, kGiB);
}

// A process that was moved out of what its namespace shows.
TEST_F(MachineResourcesTest, AGroupOutsideTheNamespaceIsNotFollowed) {
  Version2("/../../secret");
  Write("sys/secret/memory.max", "1\n");
  Write("secret/memory.max", "1\n");
  Write("sys/fs/cgroup/memory.max", "1073741824\n");
  EXPECT_EQ(Read().memory_bytes, kGiB);
}

class Version1Test : public MachineResourcesTest {
 protected:
  Version1Test() {
    Write("proc/self/mountinfo",
          "30 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
          "31 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
          "32 30 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
          "33 30 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
          "34 30 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
    Write("proc/self/cgroup",
          "4:memory:/batch/job\n3:cpuset:/\n2:cpu,cpuacct:/batch/job\n1:name=systemd:/x\n0::/x\n");
    Write("sys/fs/cgroup/memory/memory.limit_in_bytes", kNoLimit4);
    Write("sys/fs/cgroup/memory/batch/memory.limit_in_bytes", kNoLimit64);
    Group("sys/fs/cgroup/memory/batch/job", {{"memory.limit_in_bytes", "1073741824\n"},
                                             {"memory.usage_in_bytes", "536870912\n"},
                                             {"memory.stat",
                                              "cache 1\ninactive_file 1\n"
                                              "hierarchical_memory_limit 1073741824\n"
                                              "total_inactive_file 268435456\n"
                                              "total_active_file 0\n"}});
    Group("sys/fs/cgroup/cpu,cpuacct/batch",
          {{"cpu.cfs_quota_us", "-1\n"}, {"cpu.cfs_period_us", "100000\n"}});
    Group("sys/fs/cgroup/cpu,cpuacct/batch/job",
          {{"cpu.cfs_quota_us", "80000\n"}, {"cpu.cfs_period_us", "100000\n"}});
  }
};

TEST_F(Version1Test, OwnLimits) {
  const MachineResources resources = Read();
  EXPECT_EQ(resources.memory_bytes, kGiB);
  EXPECT_TRUE(resources.memory_is_limited);
  EXPECT_EQ(resources.available_memory_bytes, kGiB - kGiB / 4);
  EXPECT_EQ(resources.num_cpus, 1);
}

TEST_F(Version1Test, NoLimitIsANumberBeyondAllMemory) {
  Write("sys/fs/cgroup/memory/batch/job/memory.limit_in_bytes", kNoLimit4);
  Write("sys/fs/cgroup/memory/batch/job/memory.stat",
        absl::StrCat("hierarchical_memory_limit ", kNoLimit4));
  Write("sys/fs/cgroup/cpu,cpuacct/batch/job/cpu.cfs_quota_us", "-1\n");
  const MachineResources resources = Read();
  EXPECT_EQ(resources.memory_bytes, 512 * kGiB);
  EXPECT_FALSE(resources.memory_is_limited);
  EXPECT_EQ(resources.available_memory_bytes, 400 * kGiB);
  EXPECT_EQ(resources.num_cpus, Affinity());
}

TEST_F(Version1Test, GroupsAboveLimitToo) {
  Write("sys/fs/cgroup/memory/batch/memory.limit_in_bytes", "268435456\n");
  EXPECT_EQ(Read().memory_bytes, kGiB / 4);
}

// In a container without a namespace the groups above are not there to be read.
TEST_F(Version1Test, TheKernelKnowsTheLeastLimitAbove) {
  Write("sys/fs/cgroup/memory/batch/job/memory.stat", "hierarchical_memory_limit 134217728\n");
  EXPECT_EQ(Read().memory_bytes, kGiB / 8);
}

TEST_F(Version1Test, ACpusetOfOne) {
  Write("proc/self/cgroup", "3:cpuset:/one\n");
  Group("sys/fs/cgroup/cpuset", {{"cpuset.cpus", "0-63\n"}});
  Group("sys/fs/cgroup/cpuset/one", {{"cpuset.cpus", "\n"}, {"cpuset.effective_cpus", "5\n"}});
  EXPECT_EQ(Read().num_cpus, 1);
}

TEST_F(Version1Test, RubbishLimitsNothing) {
  Group("sys/fs/cgroup/memory/batch/job",
        {{"memory.limit_in_bytes", "many\n"}, {"memory.stat", "hierarchical_memory_limit x\n"}});
  Group("sys/fs/cgroup/cpu,cpuacct/batch/job",
        {{"cpu.cfs_quota_us", "1000\n"}, {"cpu.cfs_period_us", "0\n"}, {"cpu.max", "7"}});
  Write("proc/self/cgroup", "4:memory:/batch/job\nrubbish\n2:cpu,cpuacct:/batch/job\n");
  EXPECT_EQ(Read().memory_bytes, 512 * kGiB);
  EXPECT_EQ(Read().num_cpus, Affinity());
}

// The controllers that version 2 has are in use there, the others in version 1.
TEST_F(Version1Test, BothVersionsAtOnce) {
  Write("sys/fs/cgroup/unified/x/memory.max", "536870912\n");
  EXPECT_EQ(Read().memory_bytes, kGiB / 2);
}

TEST_F(MachineResourcesTest, MountPointsMayHoldSpaces) {
  Write("proc/self/cgroup", "0::/a\n");
  Write("proc/self/mountinfo", "29 22 0:26 / /odd\\040place rw - cgroup2 cgroup2 rw\n");
  Write("odd place/a/memory.max", "1073741824\n");
  EXPECT_EQ(Read().memory_bytes, kGiB);
}

TEST(MachineTest, TheRealMachineHasMemoryAndProcessors) {
  const MachineResources resources = ReadMachineResources();
  EXPECT_GT(resources.memory_bytes, uint64_t{16} << 20);
  EXPECT_LE(resources.available_memory_bytes, resources.memory_bytes);
  EXPECT_GE(resources.num_cpus, 1);
  EXPECT_LE(resources.num_cpus, Affinity());
}

}  // namespace
}  // namespace uniquanf
