#include "common/base/signing_key.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <sys/stat.h>

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/read_file.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

constexpr size_t kKeyBytes = 32, kSignatureBytes = 64;
constexpr size_t kMaxFileBytes = 1 << 20;

using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
using Context = std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)>;
using Bio = std::unique_ptr<BIO, decltype(&BIO_free)>;

absl::Status Invalid(absl::string_view what, absl::string_view problem) {
  ERR_clear_error();
  return InvalidInput("INVALID_KEY", absl::StrCat(what, problem));
}

Bio Memory(absl::string_view text) {
  Bio bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())), BIO_free);
  UQ_CHECK(bio != nullptr);
  return bio;
}

std::string RawPublicKey(const EVP_PKEY* key) {
  std::string bytes(kKeyBytes, '\0');
  size_t size = bytes.size();
  UQ_CHECK(
      EVP_PKEY_get_raw_public_key(key, reinterpret_cast<unsigned char*>(bytes.data()), &size) == 1);
  UQ_CHECK(size == kKeyBytes);
  return bytes;
}

absl::StatusOr<std::string> ReadKeyFile(const std::string& path) {
  absl::StatusOr<std::string> text = ReadSmallFile(path, kMaxFileBytes);
  if (!text.ok()) return Annotate(text.status(), path);
  return text;
}

// A key file that asks for a passphrase has none here.
int NoPassphrase(char*, int, int, void*) { return -1; }

}  // namespace

absl::StatusOr<VerifyingKey> VerifyingKey::FromBase64(absl::string_view text) {
  std::string bytes;
  if (!absl::Base64Unescape(text, &bytes) || bytes.size() != kKeyBytes) {
    return Invalid("", "the key is not base64 of the 32 bytes of an Ed25519 public key");
  }
  return VerifyingKey(std::move(bytes));
}

absl::StatusOr<std::vector<VerifyingKey>> VerifyingKey::FromPemFile(const std::string& path) {
  UQ_ASSIGN_OR_RETURN(const std::string text, ReadKeyFile(path));
  const Bio bio = Memory(text);
  std::vector<VerifyingKey> keys;
  while (true) {
    const Key key(PEM_read_bio_PUBKEY(bio.get(), nullptr, NoPassphrase, nullptr), EVP_PKEY_free);
    if (key == nullptr) break;
    if (EVP_PKEY_get_base_id(key.get()) != EVP_PKEY_ED25519) {
      return Invalid(path, absl::StrCat(": public key ", keys.size() + 1, " is not of Ed25519"));
    }
    keys.push_back(VerifyingKey(RawPublicKey(key.get())));
  }
  ERR_clear_error();
  // A block that is broken ends the reading as the end of the file does, and OpenSSL 3 tells them
  // apart by errors that depend on what else the process has loaded; so blocks are counted.
  size_t num_blocks = 0;
  constexpr char kBegin[] = "-----BEGIN ";
  for (size_t at = text.find(kBegin); at != text.npos; at = text.find(kBegin, at + 1)) {
    ++num_blocks;
  }
  if (keys.empty() || keys.size() != num_blocks) {
    return Invalid(path, keys.empty() ? ": holds no public key in PEM (openssl pkey -pubout)"
                                      : ": holds what is no public key in PEM");
  }
  return keys;
}

std::string VerifyingKey::Base64() const { return absl::Base64Escape(bytes_); }

bool VerifyingKey::Verifies(absl::string_view message, absl::string_view signature) const {
  if (signature.size() != kSignatureBytes) return false;
  const Key key(EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr,
                                            reinterpret_cast<const unsigned char*>(bytes_.data()),
                                            bytes_.size()),
                EVP_PKEY_free);
  const Context context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  UQ_CHECK(context != nullptr);
  const bool good =
      key != nullptr &&
      EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr, key.get()) == 1 &&
      EVP_DigestVerify(context.get(), reinterpret_cast<const unsigned char*>(signature.data()),
                       signature.size(), reinterpret_cast<const unsigned char*>(message.data()),
                       message.size()) == 1;
  ERR_clear_error();
  return good;
}

absl::StatusOr<SigningKey> SigningKey::FromPemFile(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) == 0 && (info.st_mode & (S_IRWXO | S_IWGRP)) != 0) {
    return Invalid(path, ": others can read or change this private key; chmod 0600 it");
  }
  UQ_ASSIGN_OR_RETURN(const std::string text, ReadKeyFile(path));
  const Bio bio = Memory(text);
  std::shared_ptr<EVP_PKEY> key(PEM_read_bio_PrivateKey(bio.get(), nullptr, NoPassphrase, nullptr),
                                EVP_PKEY_free);
  if (key == nullptr || EVP_PKEY_get_base_id(key.get()) != EVP_PKEY_ED25519) {
    return Invalid(path,
                   ": holds no Ed25519 private key in PEM without a passphrase (openssl genpkey "
                   "-algorithm ed25519)");
  }
  return SigningKey(std::move(key));
}

SigningKey SigningKey::Generate() {
  std::shared_ptr<EVP_PKEY> key(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"), EVP_PKEY_free);
  UQ_CHECK(key != nullptr);
  return SigningKey(std::move(key));
}

std::string SigningKey::Sign(absl::string_view message) const {
  const Context context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  std::string signature(kSignatureBytes, '\0');
  size_t size = signature.size();
  UQ_CHECK(context != nullptr && EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr,
                                                    static_cast<EVP_PKEY*>(key_.get())) == 1);
  UQ_CHECK(EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &size,
                          reinterpret_cast<const unsigned char*>(message.data()),
                          message.size()) == 1 &&
           size == kSignatureBytes);
  return signature;
}

VerifyingKey SigningKey::verifying_key() const {
  return VerifyingKey(RawPublicKey(static_cast<const EVP_PKEY*>(key_.get())));
}

std::string SigningKey::Pem() const {
  const Bio bio(BIO_new(BIO_s_mem()), BIO_free);
  UQ_CHECK(bio != nullptr && PEM_write_bio_PrivateKey(bio.get(), static_cast<EVP_PKEY*>(key_.get()),
                                                      nullptr, nullptr, 0, nullptr, nullptr) == 1);
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return std::string(data, static_cast<size_t>(size));
}

}  // namespace uniquanf
