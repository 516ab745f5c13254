// A small artifact, written file by file as FORMAT.md says, for tests that read or damage one.
#ifndef UNIQUANF_TESTS_SUPPORT_SAMPLE_ARTIFACT_H_
#define UNIQUANF_TESTS_SUPPORT_SAMPLE_ARTIFACT_H_

#include <functional>
#include <map>
#include <string>

#include "common/artifact/manifest.h"
#include "common/object_store/object_store.h"

namespace uniquanf {

// A manifest with every kind of entry, and no files.
Manifest SampleManifest();

// Writes a one-layer artifact to `store`: two quantized modules (one with a padded K), a
// full-precision one, a tied LM head, an attachment. `edit` may change the file contents before
// sizes and digests are taken, and `edit_manifest` the manifest after; both may be empty.
void WriteSampleArtifact(ObjectStore* store,
                         const std::function<void(std::map<std::string, std::string>*)>& edit = {},
                         const std::function<void(Manifest*)>& edit_manifest = {});

}  // namespace uniquanf

#endif  // UNIQUANF_TESTS_SUPPORT_SAMPLE_ARTIFACT_H_
