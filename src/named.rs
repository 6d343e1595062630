//! Enums whose variants have one name each, for configuration, labels and messages.

macro_rules! named {
    ($(#[$doc:meta])* $visibility:vis enum $name:ident {
        $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $visibility enum $name { $($(#[$variant_doc])* $variant,)+ }

        #[allow(dead_code, reason = "not every enum is listed, shown or read")]
        impl $name {
            /// Every variant, in the order of their use as an index.
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$variant),+];

            /// The name of the variant.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The variant whose name is `text`.
            pub fn from_name(text: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|variant| variant.as_str() == text)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(crate) use named;
